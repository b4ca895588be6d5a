"""Does fine-tuning reach a lower word error rate than training from random weights in the same number of steps?"""
