"""Operations of the evaluation stage, one a file."""
