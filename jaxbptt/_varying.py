from jaxbptt._trees.varying import *  # noqa
from jaxbptt._trees.varying import _axes, _over  # noqa
