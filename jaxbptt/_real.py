from jaxbptt._trees.vectors import *  # noqa
