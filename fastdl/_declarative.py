"""Small frozen objects that only say what is wanted: activations, losses, optimizers, schedules."""

import dataclasses
import reprlib
from typing import ClassVar

from . import checks


class Declarative:
    """Base of the frozen dataclasses that stand for a choice and its parameters.

    Two objects of the same class and parameters are equal, and `to_config` and `from_config` take
    any of them to JSON and back.
    """

    _classes: ClassVar = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if not _is_taken(cls):
            Declarative._classes[cls.__name__] = cls

    def _number(self, *names, **limits):
        """Replace the fields called `names` by checked floats."""
        for name in names:
            self._replace(name, checks.number(name, getattr(self, name), **limits))

    def _replace(self, name, value):
        object.__setattr__(self, name, value)


def resolve(name, identifier, base, by_name):
    """The object that an argument called `name` stands for: itself, or a new one by its string."""
    if isinstance(identifier, base):
        return identifier
    if isinstance(identifier, str):
        return by_name[checks.choice(name, identifier, tuple(by_name))]()
    raise TypeError(
        f"{name}: {reprlib.repr(identifier)} is not of fastdl's {base.__module__.split('.')[-1]} "
        f"nor one of {', '.join(by_name)}"
    )


def _is_ours(cls):
    return cls.__module__.partition(".")[0] == __package__


def _is_taken(cls):
    """Whether a user's class has the name of one of fastdl's, which files then mean."""
    return not _is_ours(cls) and _is_ours(Declarative._classes.get(cls.__name__, cls))


def to_config(value):
    """JSON types for declarative objects, also inside dicts, lists and tuples; others as is.

    Raises TypeError for a user's class with the name of one of fastdl's.
    """
    if isinstance(value, Declarative):
        if _is_taken(type(value)):
            raise TypeError(
                f"{type(value).__module__}.{type(value).__name__}: fastdl has a class of that "
                "name, which a file would mean; give this one another"
            )
        fields = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if field.init
        }
        return to_config({"class": type(value).__name__} | fields)
    if isinstance(value, dict):
        return {name: to_config(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_config(each) for each in value]
    return value


def from_config(config):
    """What `to_config` was given, tuples having become lists."""
    if isinstance(config, list):
        return [from_config(each) for each in config]
    if not isinstance(config, dict):
        return config
    fields = {name: from_config(value) for name, value in config.items() if name != "class"}
    if "class" not in config:
        return fields
    return Declarative._classes[checks.choice("class", config["class"], Declarative._classes)](
        **fields
    )
