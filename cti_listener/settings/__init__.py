"""The settings of the command line and the daemon: what there is, and what was given.

`model` holds every setting with its default, `readings` how its text is read, `loading` where it
comes from and what is wrong with it, `wording` how that is said, `making` the listener asked for.
Called by `app` and `cli`; the embedded library reads no settings.
"""

from cti_listener.settings.loading import Configuration, Problem, SettingsError, load
from cti_listener.settings.model import Settings

__all__ = ["Configuration", "Problem", "Settings", "SettingsError", "load"]
