"""Models of other libraries: locating and loading base models, LoRA, and models that users build."""
