"""Operations of the stage, one a file."""
