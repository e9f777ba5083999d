"""What is wrong with an outlet before anything is sent.

BadSettings(ValueError): an outlet cannot be made of its settings; says which one is wrong, and never quotes it.
"""


class BadOutlet(ValueError):
    """The settings of an outlet are wrong. The text names the setting and the next step, and holds no secret."""
