"""What several benchmark scripts share; scripts import it as `common`, their own folder being on the path."""
