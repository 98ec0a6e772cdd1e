"""The client's calls of the SQL core, as data: text, parameters and decoding. No I/O."""
