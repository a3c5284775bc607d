"""What is to be predicted: a class, a number or tags. A task is made of its inputs (`trainer.tasks`) and one of these."""
