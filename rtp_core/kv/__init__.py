"""Block pool, prefix index, stores."""
