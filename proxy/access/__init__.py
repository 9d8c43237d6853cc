"""Access for any client protocol: login, programs and forwards, and the policy that allows them."""
