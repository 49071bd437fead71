"""What several measurements need: kept figures, tables, pictures, clocks, memory, one training iteration."""
