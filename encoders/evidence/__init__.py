"""Evidence of an answer: the rows that a slide has without some of its tiles."""
