class OpenvinoDirectory: pass
