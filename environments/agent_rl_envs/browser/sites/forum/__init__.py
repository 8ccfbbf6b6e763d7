"""The forum: boards, threads, votes, profiles, moderation."""
