"""Step 3, a slide to tiles.

isolation/       the child process that parses slides, what is said to it, the shared memory that tiles come in
slide_readers/   what opens a slide in that child: the fast reader of tiled JPEG files, OpenSlide, and which of them
tissue/          a small picture of the slide, and what on it is tissue
pictures/        what people look at: thumbnail, overlay of a plan
plan_tiles …     resolution → level and scale → tiles; then read_tiles
"""
