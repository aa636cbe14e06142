"""The ConnectPro demo: support tickets of a made-up product, the adapter trained on them, and their stored answers."""
