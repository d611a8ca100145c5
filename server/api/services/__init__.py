"""One servicer per service of the protos. Servicers are thin: requests in, records out."""
