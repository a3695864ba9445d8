"""The race: versions of a real model to three clouds, by Fairlead and by what people use otherwise."""
