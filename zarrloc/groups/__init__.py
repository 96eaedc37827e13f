"""What each group of a store holds: its template, reader and attributes, one file a group."""
