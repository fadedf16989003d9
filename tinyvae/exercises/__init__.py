"""Exercises that check themselves: write a function of the library, or a property that kills wrong ones.

The texts and the stubs that a learner starts from lie in the repository, in `tutorials/exercises/`: `catalogue` reads
them. What judges an answer is here:

    task        what an exercise is made of: properties, expected answers, typical mistakes
    tasks       all of them, from functions_*.py (write the function) and bugs.py (write the property)
    drawing     the inputs, drawn by Hypothesis from coarse grids, so that a counter-example is short to read
    oracles     expected answers: finite differences, sums by math.fsum
    judge       runs the properties on an implementation, one failure at a time, as small as it gets
    diagnosis   what the wrong answer is in terms of the right one
    learner     a learner's file: loading it, and saying in two lines what went wrong in it
    worker      all that in a process of its own, with a time limit
    progress    what has been done, in a small JSON file
    solutions   functions that the library holds only inside larger ones
    reference   the properties that the second kind asks for
"""
