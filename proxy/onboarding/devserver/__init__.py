"""The development identity provider: RFC 8628 and the authorization code grant with PKCE, for real.

It checks what a client does, and nobody's identity: whoever reaches its page can be anybody. It therefore
listens on loopback unless told otherwise, and says what it is, on every page and in the log.
"""
