"""Blind review: the pure rules (protocol), what each screen does (services), the screens, and the web process."""
