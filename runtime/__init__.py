"""The model server: MLServer's folders in, the V2 protocol out.

A stock MLServer imports and reloads the module that a settings file names, so nothing happens here.
"""
