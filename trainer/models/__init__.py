"""Models of other libraries: where base models lie, how they are loaded, LoRA, and models that users build."""
