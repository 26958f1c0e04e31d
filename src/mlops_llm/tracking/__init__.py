"""The MLflow room: the only place that imports mlflow."""
