"""How fast is an exported model in the runtimes that people use, compared with NeMo's FastConformer?"""
