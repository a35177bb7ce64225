"""A user's own data as batches of numpy arrays: files, folders of images or shards, Python factories."""
