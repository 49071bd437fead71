"""The IDE paper's tables and figure, and what one iteration of its training costs."""
