"""Data curation: somebody's rows -> a data set in three splits with its card, in constant memory."""
