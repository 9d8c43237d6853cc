"""The development identity provider: RFC 8628 and the authorization code grant with PKCE, fully implemented.

It checks the client's protocol, but no identity: each visitor of its page can choose any account. It
therefore listens on loopback by default, and warns on every page and in the log.
"""
