"""Tools in a process of their own: a tool server and its client, and tools and environments as an MCP server."""
