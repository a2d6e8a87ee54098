"""Where events come from: `base` is the plug, the others speak it."""
