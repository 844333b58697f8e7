"""What is measured in a training, and the rules that follow it, in any order.

``metrics`` and ``class_weights`` are functions of predictions, targets and weights.
``early_stopping`` and ``plateau`` are rules about a measure of each epoch; ``averages`` are those
of theta.
"""
