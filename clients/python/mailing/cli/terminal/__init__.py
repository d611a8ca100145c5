"""What a person sees: tables, documents, live screens and single keys. Nothing here calls the service."""
