"""The mailbox: folders, labels, search, contacts."""
