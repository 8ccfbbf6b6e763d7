"""The calendar: months and days, events that may repeat, guests, invitations, free slots."""
