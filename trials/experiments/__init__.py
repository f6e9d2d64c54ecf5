"""The paper's effects at small scale, in the world `named`, each as an experiment that can be run again."""
