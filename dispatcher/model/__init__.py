"""The ground floor for both packages: the states, the records and the text templates that all others speak of."""
