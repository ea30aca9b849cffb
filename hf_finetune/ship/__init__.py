"""What leaves a finished run: weights merged and compared with the adapter, files verified as a user loads them."""
