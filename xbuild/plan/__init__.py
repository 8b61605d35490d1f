"""Deciding: a request, a survey and the host's facts become a plan, which is data."""
