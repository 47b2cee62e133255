"""From data and parameters to one fitted `flowmatch.model.FlowModel`."""
