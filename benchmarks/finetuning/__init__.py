"""Does fine-tuning reach a lower word error rate than training from nothing in the same number of steps?"""
