"""qforensics: which weights, kernel and GPU made these tokens?"""

__version__ = "0.1.0"
__all__: list[str] = []
