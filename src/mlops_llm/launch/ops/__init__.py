"""Operations on the queue, one file each."""
