from jaxbptt._trees.cotangents import *  # noqa
