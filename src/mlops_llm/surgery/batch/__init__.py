"""Many operations from one file: read and checked, put in order, carried out one by one."""
