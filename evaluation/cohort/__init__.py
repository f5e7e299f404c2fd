"""Questions about the slides of a study: a table of answers, without truths to score them by.

read_tables    slides.csv and questions.csv → slides, questions
ask_cohort     one question about one slide, put to an Eyepiece → a line of the log (asking/reply_log.py)
answer_table   tables and log → answers.csv
"""
