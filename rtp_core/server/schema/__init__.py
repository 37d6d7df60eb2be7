"""Bodies that clients send: types, bounds and the fields known but refused."""
