"""Onboarding of new users: device flow, providers, confirm page.

And later updates of users from providers.
"""
