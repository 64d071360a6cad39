"""What given weights are worth: several tasks, few labels or all, several seeds, one table.

:mod:`~swath.assess.settings` say which models, tasks, ways, shares of labels and seeds;
:mod:`~swath.assess.cells` are their combinations, each with a record that is finished or absent;
:mod:`~swath.assess.frozen` and :mod:`~swath.assess.tuned` measure one;
:mod:`~swath.assess.work` goes through all; :mod:`~swath.assess.table` and
:mod:`~swath.assess.page` show what was found.
"""
